"""Where the time of a training goes, measured; and what more machines would make of it."""
