"""Writes mibench/datasets/digits.npz from scikit-learn's copy of the UCI digits."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

if __name__ == "__main__":
    digits = load_digits()
    out = Path(__file__).parent.parent / "mibench" / "datasets" / "digits.npz"
    np.savez_compressed(out, images=digits.images.astype(np.uint8), labels=digits.target.astype(np.uint8))
    print(f"{out}: {out.stat().st_size} bytes")
