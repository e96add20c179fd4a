"""``python -m ipmiproxyd``: the daemon."""

import sys

from ipmiproxyd.main import main

if __name__ == "__main__":
    sys.exit(main())
