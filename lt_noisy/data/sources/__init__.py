"""Where images come from: TFDS, an `.npz` file, a folder of class sub-folders, or scikit-learn's digits;
and `halves` and `development`, which change the images and the splits of another source.
"""

from lt_noisy.config.spec import table
from lt_noisy.data.sources import development, digits, folder, halves, npz, tfds

SOURCES = table(
    {
        "tfds": tfds.tfds,
        "npz": npz.npz,
        "folder": folder.folder,
        "digits": digits.digits,
        "halves": halves.halves,
        "development": development.development,
    }
)
