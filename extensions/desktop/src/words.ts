/** English and Chinese of the desktop's page; what it shares with JupyterLab's item is said there. */

import { CHINESE as ITEM, type Say } from "../../lab/src/words.js";

export type { Say };

/** Says a text in the page's language, with `{name}` replaced. */
export function sayer(chinese: boolean): Say {
  const words: Record<string, string> = { ...ITEM, ...CHINESE };
  return (text, values = {}) =>
    (chinese ? (words[text] ?? text) : text).replace(/\{(\w+)\}/g, (whole, name: string) =>
      String(values[name] ?? whole)
    );
}

export const CHINESE: Record<string, string> = {
  Desktop: "桌面",
  "Tools of the desktop": "桌面工具",
  Files: "文件",
  Clipboard: "剪贴板",
  Notes: "笔记",
  Display: "显示",
  "Full screen": "全屏",
  More: "更多",
  Close: "关闭",
  "Starting the desktop …": "正在启动桌面…",
  "Connecting …": "正在连接…",
  "Connection lost. Trying again …": "连接已断开，正在重试…",
  "Connected again.": "已重新连接。",
  "You are not signed in any more.": "您已退出登录。",
  "Sign in again": "重新登录",
  "Open JupyterLab": "打开 JupyterLab",
  "Open {name} alone": "单独打开 {name}",
  "The whole desktop": "完整桌面",
  "Restart desktop …": "重启桌面…",
  "programs end": "程序将终止",
  "Restart the desktop?": "重启桌面？",
  "Restart desktop": "重启桌面",
  "Every program on the desktop ends, and what is not saved in it is lost. Files stay; JupyterLab and its kernels go on.":
    "桌面上的所有程序都将终止，未保存的内容会丢失。文件会保留，JupyterLab 及其内核不受影响。",
  "The desktop restarts …": "桌面正在重启…",
  "The desktop did not start": "桌面未能启动",
  "{name} did not start": "{name} 未能启动",
  "The desktop has ended": "桌面已结束",
  "{name} has ended": "{name} 已结束",
  "The desktop stopped unexpectedly": "桌面意外终止",
  "{name} stopped unexpectedly": "{name} 意外终止",
  "These programs are not installed here: {names}. Tell who looks after this environment.":
    "此处未安装以下程序：{names}。请联系此环境的管理者。",
  "The screen could not be made. Starting again often helps; if not, tell who looks after this environment and show the lines below.":
    "无法创建屏幕。重新启动通常可以解决；否则请联系此环境的管理者，并提供下面的日志。",
  "What should run on it ended at once. The lines below say more.": "桌面程序启动后立即退出，详情见下面的日志。",
  "Its programs ended by an error. The lines below say more.": "桌面程序因错误终止，详情见下面的日志。",
  "Nothing could be written: the disk of the home directory may be full. Delete files and start again.":
    "无法写入：主目录所在的磁盘可能已满。请删除一些文件后重新启动。",
  "Somebody logged out or ended it.": "会话已注销或被结束。",
  "Your files in work are kept.": "work 中的文件均已保留。",
  "The last lines of its log": "日志的最后几行",
  "Start again": "重新启动",
  "Text on the clipboard of the desktop": "桌面剪贴板中的文本",
  "What you copy on the desktop appears here. What you type here can be pasted there.":
    "在桌面上复制的文本会显示在这里；在这里输入的文本可以粘贴到桌面。",
  "Copy": "复制",
  Copied: "已复制",
  "Your browser keeps both clipboards the same.": "浏览器会自动同步两边的剪贴板。",
  "Your browser can do this by itself, if you allow it.": "如果您允许，浏览器可以自动同步。",
  Allow: "允许",
  "Your browser does not let this page use its clipboard; use the field above.":
    "浏览器不允许此页面使用剪贴板，请使用上面的文本框。",
  "Text was copied on the desktop: see Clipboard.": "桌面上复制了文本：请打开“剪贴板”查看。",
  "Markdown, kept with the project as work/notes.md": "Markdown，随项目保存为 work/notes.md",
  "Your note": "您的笔记",
  Saved: "已保存",
  "Saving …": "正在保存…",
  "Not saved yet": "尚未保存",
  "Not saved: the node does not answer. Trying again …": "未保存：节点没有响应，正在重试…",
  "Not saved: the disk is full.": "未保存：磁盘已满。",
  "Not saved: the project is read-only here.": "未保存：项目在此处为只读。",
  "Not saved: longer than 1 MB.": "未保存：超过 1 MB。",
  "Not saved: the disk refused it.": "未保存：磁盘拒绝写入。",
  "This note cannot be shown: it is no text, or longer than 1 MB.": "无法显示此笔记：不是文本，或超过 1 MB。",
  "The note was changed elsewhere meanwhile.": "笔记在别处被修改过。",
  "Take theirs": "使用对方版本",
  "Keep mine": "保留我的版本",
  "Open in JupyterLab": "在 JupyterLab 中打开",
  "Upload files": "上传文件",
  "or drop them anywhere on this page": "或拖放到页面任意位置",
  "Drop to put it into {folder}": "松开即可放入 {folder}",
  "This folder is empty": "此文件夹为空",
  "The first {n} are shown.": "仅显示前 {n} 项。",
  "This folder cannot be read.": "无法读取此文件夹。",
  "Folder above": "上级文件夹",
  Home: "主目录",
  "Download {name}": "下载 {name}",
  "only work is kept when the cluster goes back": "集群释放后仅保留 work",
  "{percent} of {size}": "{size} 的 {percent}",
  "{size} uploaded": "已上传 {size}",
  "Stop uploading {name}": "停止上传 {name}",
  Stopped: "已停止",
  "Kept as {name}": "已保存为 {name}",
  "No room left on the disk": "磁盘空间不足",
  "Read-only here": "此处为只读",
  "This name cannot be used": "无法使用此名称",
  "The disk refused it": "磁盘拒绝写入",
  "The connection broke": "连接中断",
  "Folders: pack them into one file first": "文件夹：请先打包成一个文件",
  waiting: "等待中",
  Size: "尺寸",
  "Fit the window": "适应窗口",
  "Always scaled to be seen whole.": "始终缩放以完整显示。",
  "This size could not be set.": "无法设置此尺寸。",
  Quality: "画质",
  Sharp: "清晰",
  "for a fast connection": "适合快速网络",
  Balanced: "均衡",
  Light: "流畅",
  "for a slow connection": "适合慢速网络",
  "Switch between light and dark": "切换浅色与深色",
  "Running programs go on after you leave. When nothing runs any more the cluster goes back; what is not saved on the desktop is lost then.":
    "您离开后，正在运行的程序会继续。不再有任务运行时，集群自动释放，届时桌面上未保存的内容会丢失。",
  "All files in work stay. Programs on the desktop, kernels and terminals end; what is not saved in them is lost.":
    "work 中的所有文件都会保留。桌面程序、内核和终端将终止，其中未保存的内容会丢失。",
  "What is not saved on the desktop is lost.": "桌面上未保存的内容会丢失。"
};
