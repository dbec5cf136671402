// The viewer's module once more, beside the page. The page sends it compiled; then the module takes the messages itself.
import init from "./viewer.js";

self.onmessage = ({ data }) =>
  init({ module_or_path: data }).catch((error) =>
    // Outside of the promise, so that the page hears of it.
    setTimeout(() => {
      throw error;
    }),
  );
