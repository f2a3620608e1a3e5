//! Where a piece of sound is in another, and how alike they are.

use anyhow::{Context, Result};
use std::ops::Range;

/// How alike two pieces are, from -1 to 1, whatever their levels; of every so manieth sample.
fn every(a: &[i16], b: &[i16], step: usize) -> f64 {
    let pairs = a.iter().zip(b).step_by(step).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let (aa, ab, bb) = pairs.fold((0.0, 0.0, 0.0), |(aa, ab, bb), (a, b)| (aa + a * a, ab + a * b, bb + b * b));
    ab / (aa * bb).sqrt().max(1.0)
}

/// How alike two pieces are, from -1 to 1, whatever their levels.
pub fn alike(a: &[i16], b: &[i16]) -> f64 {
    every(a, b, 1)
}

/// Where a piece is most alike to what sounded.
pub fn place(piece: &[i16], sounded: &[i16]) -> Result<usize> {
    place_in(piece, sounded, 0..usize::MAX)
}

/// The same, where it begins within these places.
pub fn place_in(piece: &[i16], sounded: &[i16], range: Range<usize>) -> Result<usize> {
    let places = range.start..range.end.min(sounded.len().saturating_sub(piece.len()));
    let best = |places: &mut dyn Iterator<Item = usize>, step| {
        let likeness = |at: usize| every(piece, &sounded[at..], step);
        places.map(|at| (at, likeness(at))).max_by(|a, b| a.1.total_cmp(&b.1)).context("nothing sounded there")
    };
    // Some of the samples are enough to look for it, and all to be exact.
    let near = best(&mut places.clone().step_by(4), 8)?.0;
    let around = near.saturating_sub(8).max(places.start)..(near + 8).min(places.end);
    Ok(best(&mut around.into_iter(), 1)?.0)
}
