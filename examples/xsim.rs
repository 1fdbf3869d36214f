#![allow(missing_docs, clippy::all)]
use physicnet_connectors::{synthetic::*, zarr::*};
fn main() -> anyhow::Result<()> {
    let a: Vec<String> = std::env::args().collect();
    let cfg: SyntheticSource = serde_yaml_ng::from_str(&std::fs::read_to_string(&a[1])?)?;
    let n = cfg.sensors;
    let frames = cfg.frames.unwrap();
    let sensors = cfg.sensors()?;
    let mut w =
        ArchiveWriter::create(a[2].as_ref(), &sensors[0].grid, Some(n), Default::default())?;
    let all: Vec<_> = std::thread::scope(|s| {
        let hs: Vec<_> = (0..2)
            .map(|t| {
                let cfg = &cfg;
                s.spawn(move || {
                    (t..n)
                        .step_by(2)
                        .map(|i| {
                            let mut r = Recording::new(cfg, i).unwrap();
                            (
                                i,
                                (0..frames)
                                    .map(|_| r.next_frame().unwrap().unwrap())
                                    .collect::<Vec<_>>(),
                            )
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let mut v: Vec<_> = hs.into_iter().flat_map(|h| h.join().unwrap()).collect();
        v.sort_by_key(|x| x.0);
        v
    });
    for (i, fr) in all {
        for f in fr {
            w.append(i, &f)?;
        }
    }
    w.finish()?;
    Ok(())
}
