// A button that counts while it is held: by mouse, finger or pen, or with Space or Enter when it has the focus.

const held = new Set();

/** Calls `down(event)` and `up()`, always in pairs. */
export function holdButton(element, down, up) {
  let active = false;
  const start = (event) => {
    if (active) return;
    active = true;
    held.add(end);
    down(event);
  };
  const end = () => {
    if (!active) return;
    active = false;
    held.delete(end);
    up();
  };

  element.addEventListener('pointerdown', (event) => {
    if (event.button !== 0 || element.disabled) return;
    element.setPointerCapture(event.pointerId);
    start(event);
  });
  for (const type of ['pointerup', 'pointercancel', 'lostpointercapture', 'blur']) {
    element.addEventListener(type, end);
  }
  element.addEventListener('keydown', (event) => {
    if (!isHoldKey(event)) return;
    event.preventDefault();
    if (!event.repeat && !element.disabled) start(event);
  });
  element.addEventListener('keyup', (event) => {
    if (isHoldKey(event)) end();
  });
  element.addEventListener('contextmenu', (event) => event.preventDefault());
}

const isHoldKey = (event) => event.code === 'Space' || event.code === 'Enter';

/** Runs `release` whenever the page can no longer know whether a button is still down. */
export function onAttentionLost(release) {
  const all = () => {
    for (const end of [...held]) end();
    release();
  };
  window.addEventListener('blur', all);
  window.addEventListener('pagehide', all);
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) all();
  });
}
