"""Our work beside peers and the hardware floor, in one run: `fleet bench NAME`."""
