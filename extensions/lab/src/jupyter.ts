/**
 * What we use of JupyterLab, and nothing more.
 *
 * JupyterLab's own packages would bring two hundred others into every clone for the sake of these few
 * declarations; the browser tests hold them against the real thing. Code of JupyterLab is never bundled:
 * the page's own modules are taken from the scope that it shares with its extensions.
 */

/** A token: the name of a service that JupyterLab's plugins give one another. */
export type Token = { readonly name: string };

/** A module that the page shares, one entry for each version. */
export interface Shared {
  get(): Promise<() => unknown>;
  loaded?: unknown;
}
export type ShareScope = Record<string, Record<string, Shared>>;
/** Gives a module of the page by its package's name. */
export type Share = <T>(name: string) => Promise<T>;

export interface Signal<T> {
  connect(slot: (sender: unknown, value: T) => void): boolean;
}

export interface ServerSettings {
  readonly baseUrl: string;
  readonly wsUrl: string;
}

export interface Kernel {
  reconnect(): Promise<void>;
}

/** A document or console in the main area, as far as it is one. */
export interface MainWidget {
  readonly context?: {
    readonly path: string;
    readonly model: { readonly dirty: boolean; readonly readOnly: boolean };
    save(): Promise<void>;
    revert(): Promise<void>;
  };
  readonly sessionContext?: { readonly session: { readonly kernel: Kernel | null } | null };
}

export interface LuminoWidget {
  id: string;
  addClass(name: string): void;
}

export interface JupyterFrontEnd {
  readonly restored: Promise<unknown>;
  readonly shell: {
    add(widget: LuminoWidget, area: string, options: { rank: number }): void;
    widgets(area: string): Iterable<MainWidget>;
  };
  readonly commands: {
    addCommand(id: string, options: object): unknown;
    hasCommand(id: string): boolean;
    execute(id: string, args?: object): Promise<unknown>;
    notifyCommandChanged(id?: string): void;
  };
  readonly serviceManager: { readonly ready: Promise<void>; readonly serverSettings: ServerSettings };
  resolveOptionalService(token: Token): Promise<unknown>;
}

export interface Plugin {
  id: string;
  description: string;
  autoStart: boolean;
  provides?: Token;
  activate(app: JupyterFrontEnd): unknown;
}

export interface Button {
  label: string;
  accept: boolean;
}
export interface NotificationAction {
  label: string;
  callback: (event: MouseEvent) => void;
  displayType?: "default" | "accent" | "warn" | "link";
}

export interface AppUtils {
  ICommandPalette: Token;
  Dialog: {
    cancelButton(options: object): Button;
    okButton(options: object): Button;
    warnButton(options: object): Button;
  };
  showDialog(options: object): Promise<{ button: Button }>;
  Notification: {
    emit(message: string, type: string, options: object): string;
    update(options: object): boolean;
    dismiss(id?: string): void;
  };
}

export interface Services {
  ServerConnection: {
    makeRequest(url: string, init: RequestInit, settings: ServerSettings): Promise<Response>;
  };
}

export interface CommandPalette {
  addItem(item: { command: string; category: string }): unknown;
}
