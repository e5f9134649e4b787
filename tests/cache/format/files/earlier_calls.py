"""The module of the calls whose files lie beside it."""

import collections
import fractions

import numpy as np

Point = collections.namedtuple("Point", "x y")  # noqa: PYI024  # as it was when the files were written


def number(x):
    return x * 1.5


def added(x, y):
    return x + y


def ordered(n):
    return collections.OrderedDict(a=np.arange(n), b=fractions.Fraction(1, 3))


def point(x):
    return Point(x, np.ones(2))
