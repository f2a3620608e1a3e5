// What Dispatch and Admin may read of the audit and hear of recordings.

/** Asks the gateway; throws with its sentence when it refuses. */
export async function ask(token, path) {
  const reply = await fetch(path, { headers: { Authorization: `Bearer ${token}` }, cache: 'no-store' });
  if (reply.ok) return reply;
  const said = await reply.json().catch(() => ({}));
  throw Object.assign(new Error(said.error ?? `The gateway answers ${reply.status}.`), { status: reply.status });
}

/** Records, and the names of the event's channels by id, in their order. */
export async function records(token, query) {
  const reply = await ask(token, `/api/audit?${new URLSearchParams(query)}`);
  const { records, channels } = await reply.json();
  return { records, names: namesOf(channels) };
}

/** Recordings, and the same names. */
export async function recordings(token, query) {
  const reply = await ask(token, `/api/recordings?${new URLSearchParams(query)}`);
  const { recordings, channels } = await reply.json();
  return { recordings, names: namesOf(channels) };
}

const namesOf = (channels) => new Map(channels.map(({ id, name }) => [id, name]));

/** Plays a recording; what was played before is let go of. */
export async function play(token, id, audio) {
  const reply = await ask(token, `/api/recordings/${encodeURIComponent(id)}`);
  URL.revokeObjectURL(audio.src);
  audio.src = URL.createObjectURL(await reply.blob());
  audio.hidden = false;
  await audio.play();
}

export const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
