/**
 * The one script that is read while JupyterLab starts: it names two plugins and loads nothing.
 *
 * A prebuilt extension is a container after module federation's contract: `init` takes the modules that the
 * page shares, `get` gives ours. That is small enough to be said here, so no bundler is needed; the rest
 * are the browser's own modules, fetched when the page is usable. This file is a script, not a module.
 */
(() => {
  type App = import("./jupyter.js").JupyterFrontEnd;

  const IDLE_MOST_MS = 2000;
  const here = (document.currentScript as HTMLScriptElement).src;
  let scope: import("./jupyter.js").ShareScope = {};

  const share = async <T>(name: string): Promise<T> => {
    const versions = Object.values(scope[name] ?? {});
    const one = versions.find(version => version.loaded) ?? versions[0];
    if (!one) {
      throw new Error(`JupyterLab shares no ${name}`);
    }
    return (await one.get())() as T;
  };

  /** A moment in which the page has nothing to draw: its launcher comes before our item. */
  const idle = (): Promise<unknown> =>
    new Promise(resolve => {
      if ("requestIdleCallback" in window) {
        window.requestIdleCallback(resolve, { timeout: IDLE_MOST_MS });
      } else {
        setTimeout(resolve, 100);
      }
    });

  const plugins = async (): Promise<import("./jupyter.js").Plugin[]> => {
    const { IConnectionLost } = await share<{ IConnectionLost: import("./jupyter.js").Token }>(
      "@jupyterlab/application"
    );
    return [
      {
        id: "@galilean/lab:item",
        description: "The cluster in the top bar.",
        autoStart: true,
        activate: (app: App): void => {
          void app.restored
            .then(() => app.serviceManager.ready.catch(() => undefined))
            .then(idle)
            .then(() => import(new URL("start.js", here).href))
            .then((module: typeof import("./start.js")) => module.start(app, share))
            .catch(error => console.error("Galilean's item is not shown:", error));
        }
      },
      {
        id: "@galilean/lab:connection-lost",
        description: "Says a lost connection in the top bar instead of in a dialog.",
        autoStart: true,
        provides: IConnectionLost,
        activate: () => async (): Promise<void> => undefined
      }
    ];
  };

  const containers = ((window as unknown as { _JUPYTERLAB?: Record<string, unknown> })._JUPYTERLAB ??= {});
  containers["@galilean/lab"] = {
    init: (given: typeof scope): void => {
      scope = given;
    },
    get: async (name: string): Promise<() => unknown> => {
      if (name !== "./extension") {
        throw new Error(`There is no ${name} here`);
      }
      const all = await plugins();
      return () => ({ __esModule: true, default: all });
    }
  };
})();
