"""Print the table of docs/default-credit.md: three preparations of three banks' rows, federated and pooled."""

from default_credit import BANKS, ENCODINGS, auc, banks, greatest_difference, pooled, train


def main() -> None:
    """Print it, as Markdown."""
    print(
        "| banks | preparation | columns | federated AUC | pooled AUC | greatest difference of a coefficient |"
    )
    print("|---:|---|---:|---:|---:|---:|")
    for names in (BANKS[:2], BANKS):
        for label, encoding in ENCODINGS.items():
            result, pipeline = train(banks(names), encoding), pooled(names, encoding)
            columns = result.weights["coef"].size
            found = f"{auc(result):.4f} | {auc(pipeline):.4f} | {greatest_difference(result, pipeline):.0e}"
            print(f"| {len(names)} | {label} | {columns} | {found} |", flush=True)


if __name__ == "__main__":
    main()
