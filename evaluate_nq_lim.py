"""Sweep over the number of documents shown. All flags: python evaluate_nq_lim.py --help"""

import sys

from scratchpad_rag.app.sweep import main

if __name__ == "__main__":
    sys.exit(main())
