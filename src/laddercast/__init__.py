"""From measurements of small language models to credible intervals for a big one's accuracy."""

import lazy_loader as lazy

# Names load on first use (PEP 562), as the stub beside this file lists them: imports are slow, and
# `--help` needs none.
__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
