"""``python -m open_crema.cli``"""

import sys

from open_crema.cli import main

sys.exit(main())
