#![allow(missing_docs, clippy::all)]
use candle_core::*;
use physicnet_connectors::zarr::*;
use physicnet_operators::{cropping::*, experts::*, model::*};
// xeval ckpt store first stride
fn main() -> anyhow::Result<()> {
    unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };
    let a: Vec<String> = std::env::args().collect();
    let ck = Checkpoint::load(a[1].as_ref())?;
    let net = ck.network(&Device::Cpu)?;
    let m = &ck.config;
    let ar = Archive::open(&ZarrSource::new(&a[2]))?;
    let n = ar.times(0).len();
    let (first, stride): (usize, usize) = (a[3].parse()?, a[4].parse()?);
    let l = m.horizon;
    let t0 = m.history;
    let names = [
        "persist",
        "advect",
        "trend",
        "mean",
        "sharp",
        "sharp+ramp",
        "band(mean)",
        "band(sharp)",
        "band(avg)",
    ];
    let thr = [0.1f32, 1.0, 5.0];
    let mut se = vec![vec![0f64; l]; names.len()];
    let mut cnt = vec![0f64; l];
    let mut ct = vec![vec![[[0f64; 3]; 3]; l]; names.len()];
    for i in (first..n - l).step_by(stride) {
        let fr: Vec<_> =
            (i + 1 - t0..=i + l).map(|k| ar.read(0, k)).collect::<physicnet_stream::Result<_>>()?;
        let [_, h, w] = fr[0].shape;
        let tr = m.variables[0].transform;
        let ext = Extent::new(h, w, m.stride());
        let pl: Vec<Vec<f32>> =
            fr.iter().map(|f| f.data.iter().map(|x| tr.forward(*x)).collect()).collect();
        let rc: Vec<_> = pl[..t0].iter().cloned().map(std::rc::Rc::new).collect();
        let newest = fill_missing(&rc);
        let prev = fill_missing(&rc[..t0 - 1]);
        let v = between(&newest, &prev, h, w, &tr, m.boundary);
        let mut vals = vec![];
        let mut mask = vec![];
        for t in 0..t0 {
            vals.extend(ext.pad(&fill_missing(&rc[..=t]), 1));
            mask.extend(ext.pad(
                &pl[t].iter().map(|x| if x.is_nan() { 0f32 } else { 1. }).collect::<Vec<_>>(),
                1,
            ));
        }
        let sh = (1, t0, ext.rows, ext.columns, 1);
        let b = Batch {
            frames: Tensor::from_vec(vals, sh, &Device::Cpu)?,
            mask: Tensor::from_vec(mask, sh, &Device::Cpu)?,
            flow: Tensor::from_vec(ext.pad(&v, 2), (1, ext.rows, ext.columns, 2), &Device::Cpu)?,
        };
        let o = net.forward(&b)?;
        let g = |t: &Tensor| -> anyhow::Result<Vec<f32>> { Ok(t.flatten_all()?.to_vec1()?) };
        let prior = net.prior(&b.flow)?;
        let nt = b.frames.narrow(1, t0 - 1, 1)?.squeeze(1)?.contiguous()?;
        let adv = g(&physicnet_operators::layers::warp(&nt, &prior, m.boundary)?)?;
        let mean = g(&o.mean)?;
        let sharp = match &o.sharp {
            Some(s) => g(s)?,
            None => mean.clone(),
        };
        for k in 0..l {
            for y in 0..h {
                for x in 0..w {
                    let ob = fr[t0 + k].data[y * w + x];
                    if ob.is_nan() {
                        continue;
                    }
                    let at = (y * ext.columns + x) * l + k;
                    cnt[k] += 1.;
                    let d = adv[at];
                    let ramp = 0.8 * k as f32 / (l - 1) as f32;
                    let sr = sharp[at] + ramp * (d - sharp[at]);
                    let band = |z: f32| {
                        let e =
                            [f32::NEG_INFINITY, tr.forward(0.1), tr.forward(1.0), f32::INFINITY];
                        let j = if d >= e[2] {
                            2
                        } else if d >= e[1] {
                            1
                        } else {
                            0
                        };
                        z.clamp(e[j], if j < 2 { e[j + 1] - 1e-3 } else { e[3] })
                    };
                    let now = tr.inverse(newest[y * w + x]);
                    let then = tr.inverse(prev[y * w + x]);
                    let f = [
                        now,
                        tr.inverse(d),
                        now + (now - then) * (k + 1) as f32,
                        tr.inverse(mean[at]),
                        tr.inverse(sharp[at]),
                        tr.inverse(sr),
                        tr.inverse(band(mean[at])),
                        tr.inverse(band(sharp[at])),
                        tr.inverse(band((mean[at] + sharp[at]) / 2.)),
                    ];
                    for (q, p) in f.iter().enumerate() {
                        se[q][k] += ((p - ob) as f64).powi(2);
                        for (j, t) in thr.iter().enumerate() {
                            match (p > t, ob > *t) {
                                (true, true) => ct[q][k][j][0] += 1.,
                                (true, false) => ct[q][k][j][1] += 1.,
                                (false, true) => ct[q][k][j][2] += 1.,
                                _ => {}
                            }
                        }
                    }
                }
            }
        }
    }
    for (q, nm) in names.iter().enumerate() {
        let mse: Vec<f64> = (0..l).map(|k| se[q][k] / cnt[k]).collect();
        let avg = mse.iter().sum::<f64>() / l as f64;
        let adv = (0..l).map(|k| se[1][k] / cnt[k]).sum::<f64>() / l as f64;
        print!("{nm:12} mse {avg:9.4} ({:+.1}%) [", 100. * (avg / adv - 1.));
        for k in (0..l).step_by(1) {
            print!("{:.4} ", mse[k])
        }
        print!("]");
        for j in 0..3 {
            let csi: Vec<f64> = (0..l)
                .map(|k| {
                    let c = ct[q][k][j];
                    c[0] / (c[0] + c[1] + c[2]).max(1.)
                })
                .collect();
            let worst = (0..l)
                .map(|k| {
                    let c = ct[1][k][j];
                    csi[k] - c[0] / (c[0] + c[1] + c[2]).max(1.)
                })
                .fold(9., f64::min);
            print!(
                " csi{} {:.3}/{:.3}/{:.3} worst {:+.3}",
                thr[j],
                csi[0],
                csi[l / 2],
                csi[l - 1],
                worst
            );
        }
        println!();
    }
    Ok(())
}
