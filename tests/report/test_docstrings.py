from fedpact.core.job import Job
from fedpact.report.docstrings import first_sentence, settings


class Base:
    """A base. With two sentences.

    Args:
        a: the first,
            on two lines.
        b: of the base.

    Raises:
        ValueError: never.
    """


class Derived(Base):
    """A class whose first sentence
    goes on.

    Args:
        b: of the class.
        c: a new one: with a colon.
    """


def test_settings_of_bases_are_there_and_a_class_s_own_words_go_first() -> None:
    assert settings(Derived) == {
        "a": "the first, on two lines.",
        "b": "of the class.",
        "c": "a new one: with a colon.",
    }


def test_first_sentence_is_on_one_line() -> None:
    assert first_sentence(Base) == "A base."
    assert first_sentence(Derived) == "A class whose first sentence goes on."


def test_every_setting_of_a_job_is_documented() -> None:
    assert settings(Job).keys() == Job.model_fields.keys()
