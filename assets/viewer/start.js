// Loads the module; a browser that cannot is told so on the page.
import init from "./viewer.js";

// Before anything is drawn, so that a dark page does not begin with a white flash.
try {
  document.documentElement.dataset.theme = localStorage.getItem("langptune-theme") ?? "system";
} catch {
  // Some browsers keep nothing for a page: the system's colours are right then.
}

try {
  await init();
} catch (error) {
  const message = document.createElement("p");
  message.className = "problem";
  message.setAttribute("role", "alert");
  message.textContent = `The viewer could not be started: ${error.message ?? error}`;
  document.body.append(message);
}
