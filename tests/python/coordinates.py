"""What forecast stores say beside their fields: coordinates.py STORE...

A line of JSON for each store: `time` in minutes since 1970, `revision`, and `serving` in words.
"""

import json
import sys

import numpy as np
import xarray as xr

for store in sys.argv[1:]:
    data = xr.open_zarr(store, decode_timedelta=True)
    words = data.serving.attrs["flag_meanings"].split()
    minutes = data.time.values.astype("datetime64[m]").astype(int)
    told = {
        "time": minutes.tolist(),
        "revision": data.revision.values.tolist(),
        "serving": [words[flag] for flag in data.serving.values],
    }
    assert np.unique(minutes).size == minutes.size, f"{store}: a reference time twice"
    print(json.dumps(told))
