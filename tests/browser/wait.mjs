// Waiting for things, never for time.

const POLL_MS = 20;

/**
 * Polls `probe` until it gives something truthy, and returns that. `what` completes the sentence "waited for …";
 * a probe that throws counts as "not yet", and its error is told when the deadline passes.
 */
export async function waitFor(what, probe, { deadlineMs = 10_000 } = {}) {
  const deadline = performance.now() + deadlineMs;
  let last;
  for (;;) {
    try {
      last = await probe();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) {
      const seen = last instanceof Error ? last.message : JSON.stringify(last);
      throw new Error(`waited ${deadlineMs} ms for ${what}; seen last: ${seen}`);
    }
    await new Promise((resume) => setTimeout(resume, POLL_MS));
  }
}

/** Waits for a promise, but not for ever. */
export function within(what, promise, deadlineMs = 10_000) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`waited ${deadlineMs} ms for ${what}`)), deadlineMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
