// The token of a join link, and what it says about its owner. The gateway judges it; here it is only for display.

export function tokenFromAddress() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const query = new URLSearchParams(location.search);
  return fragment.get('token') ?? query.get('token');
}

export function claimsOf(token) {
  try {
    const payload = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    const bytes = Uint8Array.from(atob(payload), (char) => char.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return {};
  }
}

/** The role that counts: an Admin is an Admin everywhere, otherwise the role in the event. */
export function effectiveRole({ globalRole, role, eventRole }) {
  if (globalRole === 'ADMIN') return 'ADMIN';
  return (role ?? eventRole) === 'DISPATCH' ? 'DISPATCH' : 'GENERAL';
}
