/** A callback of ComfyUI's, followed by one of ours. */

/** Return a function that calls `original`, if there is one, then `added`, and returns what `original` returned. */
export function chained(original, added) {
  return function (...given) {
    const result = original?.apply(this, given);
    added();
    return result;
  };
}
