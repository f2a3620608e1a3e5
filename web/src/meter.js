// Level bars in dBFS, with marks where speech should stay below: -12 on average, -3 at its peaks.
import { el, setText } from './dom.js';

export const FLOOR_DB = -60;

const position = (db) => `${((Math.min(0, Math.max(FLOOR_DB, db)) - FLOOR_DB) / -FLOOR_DB) * 100}%`;

/** A labelled bar; `set(db)` moves it. */
export function meter(label) {
  const cover = el('i.cover');
  const value = el('span.value', {}, '–');
  const marks = [-12, -3].map((db) => {
    const mark = el('b.mark', { title: `${db} dBFS` }, String(db).replace('-', '−'));
    mark.style.left = position(db);
    return mark;
  });
  const element = el('div.meter', {}, el('span.label', {}, label), el('span.bar', { 'aria-hidden': 'true' }, cover, ...marks), value);
  return {
    element,
    set(db) {
      cover.style.left = position(db ?? FLOOR_DB);
      setText(value, db == null ? '–' : db <= FLOOR_DB ? 'silent' : `${String(Math.round(db)).replace('-', '−')} dB`);
    },
  };
}

/** Level of what an AnalyserNode heard last, in dBFS (RMS). */
export function levelOf(analyser) {
  const samples = new Float32Array(2048);
  analyser.getFloatTimeDomainData(samples);
  const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
  return power > 0 ? Math.max(FLOOR_DB, 10 * Math.log10(power)) : FLOOR_DB;
}

/** The strongest tone that an AnalyserNode hears. */
export function strongestTone(analyser) {
  const bins = new Float32Array(analyser.frequencyBinCount);
  analyser.getFloatFrequencyData(bins);
  let best = 1;
  for (let bin = 2; bin < bins.length; bin++) if (bins[bin] > bins[best]) best = bin;
  const hz = (best * analyser.context.sampleRate) / analyser.fftSize;
  return { hz, db: Math.max(bins[best], -200) }; // digital silence is minus infinity, which JSON cannot say
}
