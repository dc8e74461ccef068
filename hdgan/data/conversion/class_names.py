"""The classes of a source: from a classes.csv that the user gives, or from the names that the source itself has."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from hdgan.config.options import option
from hdgan.data.class_file import MOST_CLASSES, NAME, is_name, read_classes
from hdgan.data.colors import label_palette
from hdgan.data.conversion.source import ConversionOptions, listed
from hdgan.data.spec import DatasetSpec
from hdgan.errors import ConfigError, DataError

_LABEL = re.compile("[0-9]{1,5}")


def given_classes(options: ConversionOptions) -> DatasetSpec | None:
    """The classes of the file that the user gives; None without a file.

    Raises:
        DataError: the file cannot be read, or gives two classes one name.
    """
    if options.classes is None:
        return None
    spec = read_classes(options.classes)
    twice = [name for name in dict.fromkeys(spec.classes) if spec.classes.count(name) > 1]
    if twice:
        raise DataError(f"{options.classes} has two classes named {twice[0]}: give each class a name of its own")
    return spec


def named_classes(
    options: ConversionOptions,
    names: Sequence[str],
    background: str,
    colors: Sequence[Sequence[int] | None] | None = None,
) -> DatasetSpec:
    """The classes of a source whose annotations name them: label 0 is what no shape or segment covers.

    Args:
        options: `classes` and `background` are used.
        names: Those of the source, in the order of their labels from 1 on.
        background: Name of label 0 where the user gives none.
        colors: Of these names, where the source has them.

    Raises:
        DataError: label 0 of the given file has another name, or a name cannot be written to a classes.csv.
        ConfigError: the name of `options.background` cannot be written there.
    """
    background = options.background or background
    if not is_name(background):
        raise ConfigError(f"{option('background')} is {background!r:.60}: give {NAME}")
    for name in names:
        if not is_name(name):
            raise DataError(f"{options.source} has the class {name!r:.60}: give it {NAME}")
    if len(names) >= MOST_CLASSES:
        raise DataError(f"{options.source} has {len(names)} classes: hdgan takes {MOST_CLASSES} at most")
    spec = given_classes(options)
    if spec is None:
        others = [name for name in names if name != background]
        palette = label_palette(len(others) + 1)
        for name, color in zip(names, colors or [None] * len(names), strict=True):
            if color is not None and name != background:
                palette[1 + others.index(name)] = color
        return DatasetSpec((background, *others), palette)
    if spec.classes[0] != background:
        raise DataError(
            f"{options.classes} calls label 0 {spec.classes[0]}, but label 0 is what no shape covers: move that class "
            f"to another label and call label 0 {background}, or give {option('background')} {spec.classes[0]} if "
            "label 0 is meant"
        )
    return spec


def label_of(spec: DatasetSpec, name: str, where: str, options: ConversionOptions) -> int:
    """The label of a class.

    Args:
        spec: The classes.
        name: The class.
        where: What has this class, for the message.
        options: `classes` is used.

    Raises:
        DataError: there is no such class.
    """
    if name not in spec.classes:
        raise DataError(
            f"{where} is of class {name!r:.200}, which {options.classes or 'the source'} does not have: add the class, "
            f"or correct the name (the classes are {listed(spec.classes, 12)})"
        )
    return spec.classes.index(name)


def dontcare_of(options: ConversionOptions, spec: DatasetSpec | None) -> int | None:
    """The label that the user declares to be of no class, by its name or as a number.

    Raises:
        ConfigError: there is no class of this name.
    """
    given = options.dontcare
    if given is None:
        return None
    if spec is not None and given in spec.classes:
        return spec.classes.index(given)
    if _LABEL.fullmatch(given) and int(given) <= np.iinfo(np.uint16).max:
        return int(given)
    names = f"; the classes are {listed(spec.classes, 12)}" if spec is not None else ""
    raise ConfigError(f"{option('dontcare')} is {given!r}: give the name of a class or a label from 0 to 65535{names}")


def stuff_labels(options: ConversionOptions, spec: DatasetSpec) -> frozenset[int]:
    """The labels whose shapes are joined: those of `options.stuff`, and 0.

    Raises:
        ConfigError: there is no class of a given name.
    """
    for name in options.stuff:
        if name not in spec.classes:
            raise ConfigError(
                f"{option('stuff')} {name}: there is no such class; the classes are {listed(spec.classes, 12)}"
            )
    return frozenset([0, *map(spec.classes.index, options.stuff)])


def divisor_of(n_labels: int, instances: int, least: int) -> int:
    """The divisor of instance ids: a power of ten that neither the labels nor the instances of a class reach.

    Args:
        n_labels: Number of classes.
        instances: The most instances that a class has in an image.
        least: The usual divisor, which suits nearly all datasets.
    """
    divisor = least
    while divisor < max(n_labels, instances):
        divisor *= 10
    return divisor
