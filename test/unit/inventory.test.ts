import { describe } from 'vitest';
import { createMemoryInventory } from '../../infra/memory/inventory.ts';
import { inventoryContract } from '../support/inventory-contract.ts';

describe('a fleet in memory', () => inventoryContract(async (fleet) => createMemoryInventory(fleet)));
