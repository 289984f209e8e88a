// Keeps the client's shell, so that it opens at once and without a network. Nothing of a user is ever kept: answers of the relay, files and names are
// not even looked at (R70).

const CACHE = "ferry-shell-__BUILD__";
const ASSETS = "/assets/__BUILD__/";

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.add("/")).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const clean = async () => {
    for (const name of await caches.keys()) if (name !== CACHE) await caches.delete(name);
    await self.clients.claim();
  };
  event.waitUntil(clean());
});

// The page says which of our files it has loaded before this worker came.
self.addEventListener("message", (event) => {
  const paths = Array.isArray(event.data?.shell) ? event.data.shell.filter((path) => String(path).startsWith(ASSETS)) : [];
  event.waitUntil(caches.open(CACHE).then((cache) => Promise.allSettled(paths.map((path) => cache.add(path)))));
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== location.origin) return;
  if (url.pathname.startsWith(ASSETS)) event.respondWith(keptFirst(event.request));
  else if (url.pathname === "/" && event.request.mode === "navigate") event.respondWith(freshFirst(event.request));
});

async function keptFirst(request) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request);
  if (kept) return kept;
  const fresh = await fetch(request);
  if (fresh.ok) await cache.put(request, fresh.clone());
  return fresh;
}

async function freshFirst(request) {
  try {
    return await fetch(request);
  } catch (error) {
    const kept = await (await caches.open(CACHE)).match("/");
    if (kept) return kept;
    throw error;
  }
}
