"""Ask a reader in the terminal. All flags: python demo.py --help"""

import sys

from scratchpad_rag.app.terminal import main

if __name__ == "__main__":
    sys.exit(main())
