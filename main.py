"""Train and evaluate a reader. All flags: python main.py --help"""

import sys

from scratchpad_rag.app.main import main

if __name__ == "__main__":
    sys.exit(main())
