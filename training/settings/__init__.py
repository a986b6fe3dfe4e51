"""The settings of a training run. `sections` and `data` explain them all; `reader` reads them."""
