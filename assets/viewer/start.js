// Loads the module; a browser that cannot is told so on the page.
import init from "./viewer.js";

try {
  await init();
} catch (error) {
  const message = document.createElement("p");
  message.className = "problem";
  message.setAttribute("role", "alert");
  message.textContent = `The viewer could not be started: ${error.message ?? error}`;
  document.body.append(message);
}
