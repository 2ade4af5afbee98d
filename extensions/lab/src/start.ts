/** Puts it all together once JupyterLab is usable. */

import { Actions } from "./actions.js";
import { Documents } from "./documents.js";
import { Item } from "./item.js";
import type { AppUtils, CommandPalette, JupyterFrontEnd, LuminoWidget, Services, Share, Token } from "./jupyter.js";
import { Link, type State } from "./link.js";
import { Menu } from "./menu.js";
import { Warnings } from "./warnings.js";
import { sayer } from "./words.js";

/** Behind everything that JupyterLab itself puts into its top bar. */
const RANK = 2000;

export async function start(app: JupyterFrontEnd, share: Share): Promise<void> {
  const [ui, services, translation, lumino] = await Promise.all([
    share<AppUtils>("@jupyterlab/apputils"),
    share<Services>("@jupyterlab/services"),
    share<{ ITranslator: Token }>("@jupyterlab/translation"),
    share<{ Widget: new (options: { node: HTMLElement }) => LuminoWidget }>("@lumino/widgets")
  ]);
  const link = new Link(app.serviceManager.serverSettings, services.ServerConnection);
  if (!(await link.open())) {
    return; // JupyterLab somewhere else than in a node
  }
  const translator = (await app.resolveOptionalService(translation.ITranslator)) as {
    languageCode?: string;
  } | null;
  const chosen = translator?.languageCode ?? "";
  const locale = /^(default|en)?$/.test(chosen) ? "en-GB" : chosen;
  const say = sayer(locale);

  await style();
  const item = new Item(link, say, locale);
  const documents = new Documents(app, ui, say, node => new lumino.Widget({ node }), text => item.tell(text));
  const actions = new Actions(link, documents, say, locale);
  const menu = new Menu(item, link, actions, say, locale);
  const warnings = new Warnings(ui, link, actions, say, locale);
  item.extend.onclick = () => void actions.extend();

  // Not as it is by now: what ended while the page was being put together is news, too.
  let before: State["kind"] = "waiting";
  const written = new Map<string, string>();
  const update = (): void => {
    const kind = link.state.kind;
    item.update();
    menu.update();
    warnings.update();
    for (const { path, written_at } of link.status?.headless ?? []) {
      if (written_at && written.get(path) !== written_at) {
        written.set(path, written_at);
        documents.revert(path);
      }
    }
    if (kind === "here" && before !== "here" && before !== "waiting") {
      documents.reconnect();
    }
    if (kind === "released" && before !== "released") {
      menu.close(false);
      void goodbye(ui, actions);
    }
    before = kind;
  };

  const goodbye = async (ui: AppUtils, actions: Actions): Promise<void> => {
    const { title, lines, label } = actions.goodbye();
    await ui.showDialog({ title, body: lines.join(" "), buttons: [ui.Dialog.okButton({ label })], hasClose: false });
    actions.back();
  };

  const widget = new lumino.Widget({ node: item.node });
  widget.id = "galilean-item";
  app.shell.add(widget, "top", { rank: RANK });
  link.onChange(update);
  update();

  const palette = (await app.resolveOptionalService(ui.ICommandPalette)) as CommandPalette | null;
  const commands: [string, string, () => unknown, () => boolean][] = [
    ["menu", say("Cluster menu"), () => menu.toggle(), () => true],
    ["extend", say("Extend the cluster"), () => actions.extend(), () => !!link.status?.extend],
    [
      "when-done",
      say("Continue without me, release when done"),
      () => actions.whenDone(),
      () => !!link.status?.can.when_done
    ],
    ["restart-node", say("Restart this node …"), () => actions.renew("restart"), () => !!link.status?.can.restart],
    ["reset-node", say("Reset this node …"), () => actions.renew("reset"), () => !!link.status?.can.reset],
    ["release", say("Release the cluster …"), () => actions.release(), () => !!link.status?.can.release]
  ];
  for (const [name, label, execute, isEnabled] of commands) {
    app.commands.addCommand(`galilean:${name}`, { label, execute, isEnabled });
    palette?.addItem({ command: `galilean:${name}`, category: "Galilean" });
  }
}

/** The look, before anything is shown without it. */
function style(): Promise<void> {
  return new Promise(resolve => {
    const sheet = document.createElement("link");
    sheet.rel = "stylesheet";
    sheet.href = new URL("lab.css", import.meta.url).href;
    sheet.onload = sheet.onerror = () => resolve();
    document.head.append(sheet);
  });
}
