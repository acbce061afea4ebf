"""The pictogram corpus: drawings of emoji by many vendors, and the tasks that are derived from them."""
