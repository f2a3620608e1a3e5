// The few helpers both pages need to build and change the document.

/** Makes an element: `el('p.note', { id: 'x' }, 'text', child)`. Properties with a dash become attributes. */
export function el(selector, properties = {}, ...children) {
  const [tag, ...classes] = selector.split('.');
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(' ');
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes('-') || key === 'role') element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

/** Sets a text only when it differs, so that screen readers hear it once. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function roleName(role) {
  return { DISPATCH: 'Dispatch', ADMIN: 'Admin', GENERAL: 'General' }[role] ?? '';
}
