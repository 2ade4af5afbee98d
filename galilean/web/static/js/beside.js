// The meter on the hub's own pages: a stream of the portal carries it, at once and whenever it changes.
// It is no part of the hub's page: where the portal is away, or nobody has signed in there, none is shown.
import { portal } from "galilean/page";
import { refreshTimes, setServerNow } from "galilean/times";

export function startBeside() {
  const place = document.getElementById("meter-beside");
  if (!place) return;
  let source = null;
  const show = (event) => {
    const focused = place.contains(document.activeElement);
    place.innerHTML = JSON.parse(event.data);
    const meter = place.querySelector("[data-now]");
    if (meter) setServerNow(Number(meter.dataset.now));
    refreshTimes(place);
    if (focused) meter?.focus();
  };
  // A hidden tab lets go of its connection, and is shown what is when it is seen again.
  const run = () => {
    source?.close();
    source = null;
    if (document.hidden) return;
    source = new EventSource(`${portal}meter-beside`, { withCredentials: true });
    source.addEventListener("clusters", show);
  };
  document.addEventListener("visibilitychange", run);
  addEventListener("pagehide", () => source?.close());
  addEventListener("pageshow", (event) => { if (event.persisted) run(); });
  run();
}
