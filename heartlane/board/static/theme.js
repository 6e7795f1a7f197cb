// Loaded before anything is drawn, so that a chosen colour scheme never flashes.
(() => {
  try {
    const chosen = localStorage.getItem("heartlane-theme");
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  } catch {
    // A browser that keeps nothing follows the system's scheme.
  }
})();
