"""How one client fits: models over numpy, torch and scikit-learn, and the sums that judge them."""

from fedpact.core.registry import Registry

LOSSES = Registry("loss", {"Focal": "fedpact.learn.focal:Focal"})
AUGMENTATIONS = Registry(
    "augmentation",
    {
        name: f"fedpact.learn.torch_augment:{name}"
        for name in ("RandomFlip", "RandomCrop", "RandomRotation", "ColorJitter", "RandomErasing")
    },
)
MODELS = Registry(
    "model",
    {
        "Linear": "fedpact.learn.linear:Linear",
        "Logistic": "fedpact.learn.linear:Logistic",
        "Softmax": "fedpact.learn.linear:Softmax",
        "GaussianNB": "fedpact.learn.naive_bayes:GaussianNB",
        "MultinomialNB": "fedpact.learn.naive_bayes:MultinomialNB",
        "Torch": "fedpact.learn.torch:Torch",
        "Sklearn": "fedpact.learn.sklearn:Sklearn",
    },
    LOSSES,
)
