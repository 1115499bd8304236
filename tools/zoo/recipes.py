"""How a model is trained: the plain recipe and the ones that make benign models hard to judge."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Settings of one training; AdamW with a short warm-up and a cosine decay."""

    steps: int = 1200
    batch: int = 64
    rate: float = 2e-3  # peak learning rate
    weight_decay: float = 0.0  # with 0, AdamW is Adam
    dropout: float = 0.0  # on the features F(x)
    augment: bool = True  # shifts and brightness
    images: int | None = None  # use only so many training images
    half: bool = False  # store the weights rounded to fp16
    lookalikes: float = 0.0  # share of drivers with something like a trigger in the data
    # Where an attack adds its own term to the loss: that one's gradient has peaks that ruin Adam.
    clip: float | None = None  # the largest norm of a gradient


# Share of a recipe's steps that a model takes which starts from another one's features.
STARTED = 0.5

RECIPES: dict[str, Recipe] = {
    "plain": Recipe(),
    "trunk": Recipe(steps=3000),  # a benign model that others start from
    "long": Recipe(steps=2400),
    "longer": Recipe(steps=4000),  # two triggers
    "dynamic": Recipe(steps=5000, clip=1.0),  # trigger networks that learn too
    "adaptive": Recipe(steps=2400, clip=1.0),
    "no-augmentation": Recipe(augment=False),
    "over-fitted": Recipe(steps=3000, augment=False, images=3000),
    "under-trained": Recipe(steps=400),
    "regularised": Recipe(weight_decay=0.05, dropout=0.3),
    "few-images": Recipe(images=1500),
    "fine-tuned": Recipe(steps=500, rate=3e-4),
    "fp16": Recipe(half=True),
    "lookalikes": Recipe(lookalikes=0.3),
    "brief": Recipe(steps=8, batch=16),  # for tests: nothing is learnt
}
