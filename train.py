"""Train an agent or record a dataset: python train.py --configs PRESET [SIZE] [--key value ...]"""

from __future__ import annotations

import sys

from fosp_ext.run.train import main

if __name__ == "__main__":
    sys.exit(main())
