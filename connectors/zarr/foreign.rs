//! Files that are no store, and what they are instead.

use std::io::Read;
use std::path::Path;

/// A format that is not read.
struct Format {
    name: &'static str,
    /// How its files begin.
    begins: &'static [&'static [u8]],
    endings: &'static [&'static str],
}

const FORMATS: [Format; 2] = [
    Format {
        name: "NetCDF",
        begins: &[b"\x89HDF\r\n\x1a\n", b"CDF\x01", b"CDF\x02", b"CDF\x05"],
        endings: &["nc", "nc4", "cdf", "h5", "hdf5"],
    },
    Format { name: "GRIB", begins: &[b"GRIB"], endings: &["grib", "grib2", "grb", "grb2"] },
];

/// Why there is no store at `path`, where it is a file or called like one of another format, and
/// the way to a store; nothing where there may be one.
pub fn foreign(path: &Path) -> Option<String> {
    let mut begin = Vec::new();
    if path.is_file() {
        let file = std::fs::File::open(path).ok()?;
        file.take(8).read_to_end(&mut begin).ok()?;
    } else if path.is_dir() || !super::is_url(path) {
        return None;
    }
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let is = |format: &&Format| {
        format.begins.iter().any(|magic| begin.starts_with(magic))
            || format.endings.contains(&&*ending)
    };
    let known = FORMATS.iter().find(is).map(|format| format.name);
    let engine = if known == Some("GRIB") { ", engine=\"cfgrib\"" } else { "" };
    known.map(|name| {
        format!(
            "is {name}, and what is read are Zarr stores; xarray makes one of it: `import xarray as \
             xr; xr.open_mfdataset(\"*.{ending}\"{engine}).to_zarr(\"data.zarr\")` (docs/stores.md, \
             NetCDF and GRIB)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_formats_are_known_by_their_first_bytes_or_their_ending() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes, told) in [
            ("a", &b"\x89HDF\r\n\x1a\n more"[..], Some("is NetCDF")),
            ("b.data", b"CDF\x02", Some("is NetCDF")),
            ("c.nc", b"", Some("is NetCDF")),
            ("d", b"GRIB\0\0\0\x02", Some("engine=\"cfgrib\"")),
            ("e.grb2", b"", Some("is GRIB")),
            ("f.safetensors", b"12345678", None),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let said = foreign(&path);
            assert_eq!(said.is_some(), told.is_some(), "{name}: {said:?}");
            assert!(said.unwrap_or_default().contains(told.unwrap_or_default()), "{name}");
        }
        assert!(foreign(Path::new("https://host/a.nc")).unwrap().contains("NetCDF"));
        for none in ["https://host/a.zarr", "absent.nc"] {
            assert_eq!(foreign(Path::new(none)), None);
        }
        // A folder may be called anything.
        let folder = folder.path().join("g.nc");
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(foreign(&folder), None);
    }
}
