export { matrixWorkflow } from './matrix.ts';
export { releaseWorkflow } from './release.ts';
