// Level bars in dBFS, with marks where speech should stay below: -12 on average, -3 at its peaks.
import { el, setText } from './dom.js';

export const FLOOR_DB = -60;

const position = (db) => `${((Math.min(0, Math.max(FLOOR_DB, db)) - FLOOR_DB) / -FLOOR_DB) * 100}%`;

/** For how long the highest peak stays marked, in ms. */
const HOLD_MS = 2000;

/** A labelled bar. `set(db)` moves it; `set(db, { peakDbfs, clipped })` marks the highest peak and says what clipped since. */
export function meter(label) {
  const cover = el('i.cover');
  const hold = el('i.hold', { hidden: true });
  const clip = el('button.clip', { type: 'button', hidden: true, title: 'Samples at full scale; press to forget them' });
  let peak = FLOOR_DB; // the newest
  let held = FLOOR_DB;
  let holding;
  let clipped; // as the gateway counts
  let forgotten;
  const holdPeak = () => {
    held = peak;
    hold.hidden = held <= FLOOR_DB;
    hold.style.left = position(held);
    element.dataset.peak = held;
    clearTimeout(holding);
    if (!hold.hidden) holding = setTimeout(holdPeak, HOLD_MS); // also when nothing changes any more
  };
  const showClip = () => {
    const since = clipped - forgotten;
    clip.hidden = !(since > 0);
    setText(clip, `Clip ${since}`);
  };
  clip.onclick = () => {
    forgotten = clipped;
    showClip();
  };
  const value = el('span.value', {}, '–');
  const marks = [-12, -3].map((db) => {
    const mark = el('b.mark', { title: `${db} dBFS` }, String(db).replace('-', '−'));
    mark.style.left = position(db);
    return mark;
  });
  const element = el('div.meter', {}, el('span.label', {}, label), el('span.bar', { 'aria-hidden': 'true' }, cover, hold, ...marks), el('span.readings', {}, clip, value));
  return {
    element,
    set(db, gauge = null) {
      cover.style.left = position(db ?? FLOOR_DB);
      setText(value, db == null ? '–' : db <= FLOOR_DB ? 'silent' : `${String(Math.round(db)).replace('-', '−')} dB`);
      if (!gauge) return;
      peak = gauge.peakDbfs;
      if (peak > held || element.dataset.peak === undefined) holdPeak();
      clipped = gauge.clipped;
      forgotten = Math.min(forgotten ?? clipped, clipped); // a gateway that started anew counts anew
      showClip();
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
