// What Dispatch and Admin may read of the audit and hear of recordings.

/** Asks the gateway; throws with its sentence when it refuses. */
export async function ask(token, path) {
  const reply = await fetch(path, { headers: { Authorization: `Bearer ${token}` }, cache: 'no-store' });
  if (reply.ok) return reply;
  const said = await reply.json().catch(() => ({}));
  throw Object.assign(new Error(said.error ?? `The gateway answers ${reply.status}.`), { status: reply.status });
}

export async function records(token, query) {
  const reply = await ask(token, `/api/audit?${new URLSearchParams(query)}`);
  return (await reply.json()).records;
}

export async function recordings(token, query) {
  const reply = await ask(token, `/api/recordings?${new URLSearchParams(query)}`);
  return (await reply.json()).recordings;
}

/** Plays a recording; what was played before is let go of. */
export async function play(token, id, audio) {
  const reply = await ask(token, `/api/recordings/${encodeURIComponent(id)}`);
  URL.revokeObjectURL(audio.src);
  audio.src = URL.createObjectURL(await reply.blob());
  audio.hidden = false;
  await audio.play();
}

export const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
