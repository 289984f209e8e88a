// SHA-256 in pieces: the browser's own (crypto.subtle) takes only a whole that lies in memory. FIPS 180-4.

const K = new Int32Array(64);
const H0 = new Int32Array(8);

// The constants are what the standard says they are: fractional parts of roots of the first primes.
(function constants() {
  const fraction = (x) => ((x - Math.floor(x)) * 0x100000000) | 0;
  let n = 0;
  for (let p = 2; n < 64; p += 1) {
    let prime = true;
    for (let d = 2; d * d <= p; d += 1) if (p % d === 0) prime = false;
    if (!prime) continue;
    if (n < 8) H0[n] = fraction(Math.sqrt(p));
    K[n] = fraction(Math.cbrt(p));
    n += 1;
  }
})();

/** A hash in the making. */
export class Sha256 {
  #state = Int32Array.from(H0);
  #words = new Int32Array(64);
  #rest = new Uint8Array(64);
  #restLength = 0;
  #length = 0;

  /** Takes these bytes in. */
  update(bytes) {
    this.#length += bytes.length;
    let at = 0;
    if (this.#restLength > 0) {
      at = Math.min(64 - this.#restLength, bytes.length);
      this.#rest.set(bytes.subarray(0, at), this.#restLength);
      this.#restLength += at;
      if (this.#restLength < 64) return this;
      mix(this.#state, this.#words, this.#rest, 0, 64);
      this.#restLength = 0;
    }
    const end = at + Math.floor((bytes.length - at) / 64) * 64;
    mix(this.#state, this.#words, bytes, at, end);
    this.#rest.set(bytes.subarray(end));
    this.#restLength = bytes.length - end;
    return this;
  }

  /** The hash of everything taken in, in hexadecimal digits. Ends the making. */
  hex() {
    const bits = this.#length * 8;
    const tail = new Uint8Array(this.#restLength < 56 ? 64 : 128);
    tail.set(this.#rest.subarray(0, this.#restLength));
    tail[this.#restLength] = 0x80;
    const view = new DataView(tail.buffer);
    view.setUint32(tail.length - 8, Math.floor(bits / 0x100000000));
    view.setUint32(tail.length - 4, bits >>> 0);
    mix(this.#state, this.#words, tail, 0, tail.length);
    return Array.from(this.#state, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  }
}

/** Mixes whole blocks into the state `s`; `w` is room for one block's words. Apart from the class, where engines make it three times as fast. */
function mix(s, w, bytes, from, to) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  let h0 = s[0], h1 = s[1], h2 = s[2], h3 = s[3], h4 = s[4], h5 = s[5], h6 = s[6], h7 = s[7];
  for (let at = from; at < to; at += 64) {
    for (let i = 0; i < 16; i += 1) w[i] = view.getInt32(at + (i << 2));
    for (let i = 16; i < 64; i += 1) {
      const x = w[i - 15];
      const y = w[i - 2];
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0;
    }
    let a = h0, b = h1, c = h2, d = h3, e = h4, f = h5, g = h6, h = h7;
    for (let i = 0; i < 64; i += 1) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (h + s1 + (g ^ (e & (f ^ g))) + K[i] + w[i]) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) | (c & (a | b)))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + t1) | 0;
      d = c;
      c = b;
      b = a;
      a = (t1 + t2) | 0;
    }
    h0 = (h0 + a) | 0;
    h1 = (h1 + b) | 0;
    h2 = (h2 + c) | 0;
    h3 = (h3 + d) | 0;
    h4 = (h4 + e) | 0;
    h5 = (h5 + f) | 0;
    h6 = (h6 + g) | 0;
    h7 = (h7 + h) | 0;
  }
  s[0] = h0; s[1] = h1; s[2] = h2; s[3] = h3; s[4] = h4; s[5] = h5; s[6] = h6; s[7] = h7;
}
