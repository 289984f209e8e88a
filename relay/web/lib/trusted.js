// The only addresses that may become scripts: workers of ours. The page's policy (`trusted-types ferry`) refuses all others.

const OWN = /^\/(sw\.js|assets\/[0-9a-f]+\/lib\/hash-worker\.js)$/;

const policy = globalThis.trustedTypes?.createPolicy("ferry", {
  createScriptURL(address) {
    if (OWN.test(new URL(address, location.href).pathname) && new URL(address, location.href).origin === location.origin) return address;
    throw new TypeError(`not a script of ours: ${address}`);
  },
});

/** The address of a script of ours. */
export const scriptUrl = (address) => policy?.createScriptURL(String(address)) ?? String(address);
