//! Work in all threads, where there are several.

/// From how many multiplications on threads are worth their start: below, as many models at once use the cores
/// better.
#[cfg(not(target_arch = "wasm32"))]
const LARGE: usize = 1 << 22;

/// Gives `work` consecutive parts of `out`, and how many units of `unit` values stand before each. What a unit
/// becomes must not depend on its part. `cost` is how many multiplications a unit takes, `least` how many units a part
/// should have. How many it has is given back; the last may have fewer.
pub(super) fn each_part(
    out: &mut [f32],
    (unit, least): (usize, usize),
    cost: usize,
    work: impl Fn(usize, &mut [f32]) + Sync,
) -> usize {
    let units = out.len() / unit.max(1);
    #[cfg(not(target_arch = "wasm32"))]
    {
        use rayon::prelude::*;
        let threads = rayon::current_num_threads();
        if threads > 1 && units.saturating_mul(cost) >= LARGE {
            let part = units.div_ceil((units / least).clamp(1, 4 * threads));
            let parts = out.par_chunks_mut(part * unit).enumerate();
            parts.for_each(|(place, out)| work(place * part, out));
            return part;
        }
    }
    let _ = (cost, least);
    work(0, out);
    units
}
