"""The embedded pair: a small target and a smaller draft that share a tokenizer.

Both are ordinary transformers folders, so every command that takes a model folder takes these.
"""

from pathlib import Path

ROOT = Path(__file__).parent
TARGET = ROOT / "target"
DRAFT = ROOT / "draft"
