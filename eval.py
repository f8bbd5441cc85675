"""Play episodes of a trained agent in its environment: python eval.py --logdir RUN"""

from __future__ import annotations

import sys

from fosp_ext.run.eval import main

if __name__ == "__main__":
    sys.exit(main())
