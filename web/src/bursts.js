// Turns records of the audit into bursts: who talked where, from when to when, why it ended, what it interrupted.

const STARTS = ['ptt.start', 'priority_ptt.start', 'emergency_broadcast.start'];
const ENDS = ['ptt.stop', 'ptt.revoked', 'priority_ptt.interrupted', 'emergency_broadcast.stop'];
/** The records that matter here. */
export const KINDS = ['ptt', 'priority_ptt', 'emergency_broadcast', 'recording.stored', 'system.start', 'system.stop', 'system.crash_found'];

/** Bursts from records, oldest first. They may be handed in piece by piece. */
export class Bursts {
  all = []; // { burst, channel, user, name, role, emergency, start, end, cause, interrupted, measured, recording }
  denials = []; // { channel, at, name, cause }
  #known = new Map(); // burst id -> burst; ids begin anew with every start of the gateway
  #runningEmergency = null;

  take(row) {
    const at = Date.parse(row.utc);
    if (STARTS.includes(row.action)) this.#start(row, at);
    else if (ENDS.includes(row.action)) this.#end(row, at);
    else if (row.action === 'ptt.denied') {
      this.denials.push({ channel: row.channel, at, name: row.actor_name ?? row.actor, cause: row.cause });
    } else if (row.action === 'priority_ptt.measured') this.#with(row, (burst) => (burst.measured = row.detail));
    else if (row.action === 'recording.stored') this.#with(row, (burst) => (burst.recording = row.detail));
    else if (row.action.startsWith('system.')) this.#restart(row, at);
  }

  /** Channels in the order in which they were first talked on. */
  channels() {
    return [...new Set(this.all.map((burst) => burst.channel).filter(Boolean))];
  }

  #start(row, at) {
    const emergency = row.action === 'emergency_broadcast.start';
    const burst = {
      burst: row.burst, channel: emergency ? null : row.channel, user: row.actor, name: row.actor_name ?? row.actor,
      role: row.role, emergency, start: at, end: null, cause: null, interrupted: row.detail?.interrupted ?? null,
      measured: null, recording: null,
    };
    this.all.push(burst);
    this.#known.set(row.burst, burst);
    if (emergency) this.#runningEmergency = burst;
  }

  #end(row, at) {
    const burst = row.action === 'emergency_broadcast.stop' ? this.#runningEmergency : this.#known.get(row.burst);
    if (!burst || burst.end !== null) return;
    burst.end = at;
    burst.cause = row.cause;
    burst.cutBy = row.action === 'priority_ptt.interrupted' ? row.target : null;
  }

  #with(row, note) {
    const burst = this.#known.get(row.burst);
    if (burst) note(burst);
  }

  /** The gateway stopped or started: whatever ran is over. A recording of before the start may still follow it. */
  #restart(row, at) {
    const over = row.action === 'system.crash_found' ? Date.parse(row.detail?.lastUtc ?? row.utc) : at;
    for (const burst of this.all.filter((b) => b.end === null)) {
      burst.end = Math.max(burst.start, over);
      burst.cause = row.action === 'system.stop' ? 'stopped' : 'crash';
    }
    this.#runningEmergency = null;
  }
}
