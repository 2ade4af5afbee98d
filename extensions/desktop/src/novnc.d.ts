/** As much of noVNC's interface as the page uses; its own package has no types. */
declare module "@novnc/novnc" {
  export default class RFB extends EventTarget {
    constructor(target: HTMLElement, url: string, options?: { shared?: boolean; wsProtocols?: string[] });
    background: string;
    compressionLevel: number;
    qualityLevel: number;
    resizeSession: boolean;
    scaleViewport: boolean;
    focusOnClick: boolean;
    disconnect(): void;
    focus(options?: FocusOptions): void;
    clipboardPasteFrom(text: string): void;
  }
}
