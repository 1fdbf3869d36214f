// Colour maps that are even in perceived lightness.

/** Viridis, as the polynomial of degree 6 that Matt Zucker fitted: `share` from 0 to 1. */
export function viridis(share) {
  const c = [
    [0.27772733, 0.0054073445, 0.3340998], [0.10509304, 1.4046135, 1.3845901],
    [-0.33086183, 0.21484756, 0.095095165], [-4.6342305, -5.799101, -19.332441],
    [6.22827, 14.179933, 56.69055], [4.776385, -13.745145, -65.35303],
    [-5.435456, 4.6458526, 26.312435],
  ];
  const t = Math.min(1, Math.max(0, share));
  return [0, 1, 2].map((channel) => {
    let value = 0;
    for (let i = 6; i >= 0; i--) value = value * t + c[i][channel];
    return Math.round(255 * Math.min(1, Math.max(0, value)));
  });
}

/** A colour of Oklch: lightness, chroma, and hue in degrees. */
export function oklch(lightness, chroma, hue) {
  const [a, b] = [Math.cos, Math.sin].map((f) => chroma * f((hue * Math.PI) / 180));
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  return linear.map((value) => {
    const v = Math.min(1, Math.max(0, value));
    return Math.round(255 * (v <= 0.0031308 ? 12.92 * v : 1.055 * v ** (1 / 2.4) - 0.055));
  });
}

/** Blue below, red above, the ground in between: `share` from -1 to 1. */
export function diverging(share, dark) {
  const t = Math.min(1, Math.abs(share));
  const lightness = dark ? 0.24 + 0.5 * t : 0.97 - 0.47 * t;
  return oklch(lightness, 0.15 * t, share < 0 ? 255 : 30);
}

/** A colour for a code: neighbours in number lie far apart in hue. */
export function named(code) {
  return oklch(0.5 + 0.09 * (code % 4), 0.11, (code * 137.508) % 360);
}

export const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
