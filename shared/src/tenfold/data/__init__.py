"""Named data sets, found on this machine, downloaded, or embedded.

A set is looked for in the folder that the environment variable ``TENFOLD_DATA`` names, then in the
user's cache, and is then downloaded with its checksum. The embedded sets need none of that:

>>> from tenfold import data
>>> digits = data.load("digits")
>>> digits.train.images.shape, digits.source
((1266, 8, 8), 'embedded')

=================  =======================================  ==========================  =========
name               train / validation / test                images                      embedded
=================  =======================================  ==========================  =========
``digits``         1,266 / 176 / 355                         8 x 8 grey, from 0 to 16    yes
``mnist-5k``       3,500 / 500 / 1,000                       28 x 28 grey                yes
``mnist``          55,000 / 5,000 / 10,000                   28 x 28 grey                no
``fashion-mnist``  55,000 / 5,000 / 10,000                   28 x 28 grey                no
``cifar10``        45,000 / 5,000 / 10,000                   32 x 32 colour              no
=================  =======================================  ==========================  =========
"""

from tenfold.data import _cifar10, _embedded, _mnist  # noqa: F401 - importing them registers their sets
from tenfold.data._download import Remote
from tenfold.data._locate import Found, Layout
from tenfold.data._normalise import channel_statistics, normalise
from tenfold.data._registry import available, find, load, register, register_files
from tenfold.data._types import ImageData, Source, Split, Splits

__all__ = [
    "Found",
    "ImageData",
    "Layout",
    "Remote",
    "Source",
    "Split",
    "Splits",
    "available",
    "channel_statistics",
    "find",
    "load",
    "normalise",
    "register",
    "register_files",
]
